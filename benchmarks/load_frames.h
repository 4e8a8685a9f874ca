// What sockets receive, a part of load.c: heads, frames, marks. Included once, after its declarations.
static void look_for_mark(struct peer *p, unsigned char c) {
  if (p->marked) return;
  if (c == '@') {
    if (p->marking && p->digits == MARK - 2) { p->marked = 1; return; }
    p->marking = 1; p->digits = 0; p->mark = 0;
  } else if (p->marking) {
    if (c < '0' || c > '9') p->marking = 0; else { p->digits++; p->mark = p->mark * 10 + (c - '0'); }
  }
}
static void frame_came(struct peer *p) {
  int op = p->head[0] & 15;
  if (op == 1 || op == 2) {
    if (!p->served) { p->served = 1; served++; }
    if (p->marked) { p->nmarked++; last_frame = now(); if (!frames.n) first_frame = last_frame; push(&frames, last_frame - p->mark); }
  } else if (op == 9) {
    unsigned char pong[6 + 125] = {0x8a, (unsigned char)(0x80 | p->ncontrol)};  // masked with zeros
    memcpy(pong + 6, p->control, (size_t)p->ncontrol);
    if (write(p->fd, pong, 6 + (size_t)p->ncontrol) < 0) gone(p);
  } else if (op == 8) {
    if (failed + closed < 3) fprintf(stderr, "closed: %d %.*s\n", p->control[0] << 8 | p->control[1], p->ncontrol > 2 ? p->ncontrol - 2 : 0, p->control + 2);
    gone(p);
  }
  p->nhead = 0; p->in_payload = 0;
}
static void take_frames(struct peer *p, unsigned char *b, ssize_t n) {
  for (ssize_t i = 0; i < n && p->state == OPEN;) {
    if (!p->in_payload) {
      p->head[p->nhead++] = b[i++];
      int kind = p->head[1] & 127, need = p->nhead < 2 ? 10 : 2 + (kind == 126 ? 2 : kind == 127 ? 8 : 0);
      if (p->nhead < need) continue;
      p->left = kind < 126 ? (uint64_t)kind : 0;
      for (int k = 2; k < need; k++) p->left = p->left << 8 | p->head[k];
      p->in_payload = 1; p->ncontrol = 0; p->marking = p->marked = 0;
    } else {
      int control = p->head[0] & 8;
      for (; i < n && p->left; i++, p->left--) {
        if (!control) look_for_mark(p, b[i]); else if (p->ncontrol < 125) p->control[p->ncontrol++] = b[i];
      }
    }
    if (p->in_payload && !p->left) frame_came(p);
  }
}
static void take_head(struct peer *p, unsigned char *b, ssize_t n) {
  ssize_t i = 0;
  while (i < n && p->state == HEAD) {
    if (p->nstatus < 12) p->status[p->nstatus++] = (char)b[i];
    p->tail = p->tail << 8 | b[i++];
    if (p->tail != 0x0d0a0d0a) continue;
    if (memcmp(p->status, "HTTP/1.1 101", 12)) { if (!failed) fprintf(stderr, "refused: %.12s\n", p->status); gone(p); return; }
    p->state = OPEN; upgraded++;
    if (!expect_hello) { p->served = 1; served++; }
  }
  take_frames(p, b + i, n - i);
}

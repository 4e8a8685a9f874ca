"""Mutants of the security requirements: one defence taken out each. Those of revocation stand beside this file."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant, Sight

TOKENS, COMPACT = "gateway/auth/tokens.py", "gateway/auth/compact.py"
FORGED, SPELLING = "tests/security/test_tok_forged.py", "tests/security/test_tok_spelling.py"
ROTATION = "tests/security/test_rt_rotation.py"
TAKEN = r"GET /inbox: 200"
"""What ``refused_over_http`` says of a token that is taken."""

SECURITY = (
    Mutant(
        "algorithm-by-header",
        "the algorithm is what the token says: the public key, in the one spelling that python-jose does not know as a"
        " key, is the secret of an HMAC that anybody can make",
        [
            Edit(
                TOKENS,
                """
-        if key is None or header["alg"] != key.algorithm:
+        if key is None:
""",
            ),
            Edit(
                TOKENS,
                """
-        # The key itself: jws.verify reads the whole token a second time, to find the algorithm that we have just seen.
-        if not key.verifies.verify(f"{head}.{body}".encode("ascii"), signed):
-            raise TokenInvalid("signature")
+        named, good = members(decoded(head))["alg"], key.verifies
+        if named != key.algorithm and key.algorithm != "HS256":
+            from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
+
+            good = key.verifies.prepared_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
+        jws.verify(raw, good, [named])
""",
            ),
        ],
        [Sight(f"{FORGED}::test_TOK_02_a_public_key_is_no_secret", TAKEN)],
    ),
    Mutant(
        "header-with-more",
        "what else a header says is passed over, as python-jose does: `crit` too, which must be understood or refused",
        [
            Edit(
                TOKENS,
                """
-        if header.keys() != {"alg", "kid", "typ"} or header["typ"] not in _TYPES:
+        if not {"alg", "kid", "typ"} <= header.keys() or header["typ"] not in _TYPES:
""",
            )
        ],
        [Sight(f"{FORGED}::test_TOK_05_a_header_says_three_things_and_no_more", TAKEN)],
    ),
    Mutant(
        "date-of-any-kind",
        "a date is whatever looks like a number: fractions and `true` count",
        [
            Edit(
                COMPACT,
                """
-    if type(value) is not int or not 0 < value < LATEST:  # a bool is an int to isinstance
+    if not isinstance(value, int | float) or not 0 < value < LATEST:
""",
            )
        ],
        [Sight(f"{FORGED}::test_TOK_10_a_time_is_a_whole_number_of_seconds", TAKEN)],
    ),
    Mutant(
        "date-that-breaks",
        "a date is converted, and only the errors one thinks of are caught: a token answers 500",
        [
            Edit(
                COMPACT,
                """
     value = claims[name]
-    if type(value) is not int or not 0 < value < LATEST:  # a bool is an int to isinstance
+    if not 0 < int(value) < LATEST:
         raise TokenInvalid(name)
""",
            ),
            Edit(
                TOKENS,
                """
         except (TokenInvalid, TokenExpired):
             raise
-        except Exception as error:  # jose, json and base64 raise seven kinds: a token must never become a 500
+        except (ValueError, KeyError, jose.JOSEError) as error:
""",
            ),
        ],
        [Sight(f"{FORGED}::test_TOK_10_a_time_is_a_whole_number_of_seconds", r"GET /inbox: 500")],
    ),
    Mutant(
        "signature-in-any-spelling",
        "a signature is read as python-jose reads it: one token has many texts",
        [
            Edit(
                TOKENS,
                """
         head, body, signature = raw.split(".")
-        signed = decoded(signature)  # in its one spelling: jose forgives what is not canonical
+        from jose.utils import base64url_decode
+
+        signed = base64url_decode(signature.encode())
""",
            )
        ],
        [Sight(f"{SPELLING}::test_TOK_13_a_token_has_one_spelling", TAKEN)],
    ),
    Mutant(
        "successor-at-random",
        "every refresh makes up a successor: of two at once one is taken for a thief, and the session ends",
        [
            Edit(
                "gateway/auth/refresh.py",
                """
-        secret = hmac.digest(self._key, token.encode("ascii"), "sha256")
+        secret = secrets.token_bytes(32)
""",
            )
        ],
        [
            Sight(
                f"{ROTATION}::test_RT_03_of_fifty_at_once_all_get_the_same_successor", r"assert \{.*401.*\} == \{200\}"
            ),
            Sight(
                f"{ROTATION}::test_RT_03_of_fifty_at_once_over_two_nodes_all_get_the_same_successor",
                r"assert \{.*401.*\} == \{200\}",
            ),
        ],
    ),
    Mutant(
        "grace-for-any-predecessor",
        "the grace of a lost answer is for every refresh token of the last seconds: a thief with an older one goes on",
        [
            Edit(
                "gateway/login.py",
                """
-        if generation == current - 1 and millis(now) - rotated_at <= self._refresh_grace * 1000:
+        if millis(now) - rotated_at <= self._refresh_grace * 1000:
""",
            )
        ],
        [Sight(f"{ROTATION}::test_RT_05_the_grace_is_for_the_direct_predecessor_only", r"POST /auth/refresh: 200")],
    ),
    Mutant(
        "ticket-twice",
        "nobody asks whether a ticket was used: what stood in a URL, and in a log, opens sockets for thirty seconds",
        [
            Edit(
                "gateway/tickets.py",
                """
-        if not await self._used.use(ticket.id, until=ticket.expires_at * 1000):
-            raise TokenInvalid("a used ticket")
         return self._authn.standing(ticket.principal.claims)
""",
            )
        ],
        [
            Sight(
                "tests/security/test_wsh_tickets.py::test_WSH_03_of_twenty_uses_at_once_one_is_accepted",
                r"assert 20 == 1",
            )
        ],
    ),
    Mutant(
        "fragments-without-end",
        "a message may have any number of fragments: empty ones cost memory and never count as a message",
        [
            Edit(
                "gateway/sockets/framing.py",
                """
-        if len(parts) >= self._limits.max_fragments:
-            return MESSAGE_TOO_BIG
         parts.append(bytes(frame.data))
""",
            )
        ],
        [
            Sight(
                "tests/security/test_wsf_frames.py"
                "::test_WSF_09_a_message_in_64_fragments_is_heard_and_one_in_65_is_not",
                r'"type":"pong"',
            )
        ],
    ),
    Mutant(
        "member-twice",
        "of a member that stands twice in a request the last one counts: a proxy in front may have read the first",
        [
            Edit(
                "gateway/api/strict.py",
                """
     members = dict(pairs)
-    if len(members) != len(pairs):
-        raise _Trouble
     return members
""",
            )
        ],
        [
            Sight(
                "tests/security/test_api_bodies.py"
                "::test_API_11_what_two_readers_would_read_differently_is_refused_and_nothing_is_stored",
                r'^(AssertionError: )?\{"id":',
            )
        ],
    ),
    Mutant(
        "unknown-name-is-quick",
        "for a name that nobody has nothing is hashed: whoever holds a clock learns who has an account",
        [
            Edit(
                "gateway/auth/passwords.py",
                """
         if stored is None or len(password) > LONGEST or (ok := self._matches(password, stored)) is None:
-            self._context.verify("", self._load())
             return False, None
""",
            )
        ],
        [
            Sight(
                "tests/security/test_auth_timing.py::test_AUTH_05_an_unknown_name_takes_as_long_as_a_wrong_password[120]",
                r"an unknown name can be told by the time it takes",
            )
        ],
    ),
    Mutant(
        "bus-believes-anybody",
        "what comes over Redis is believed without its MAC: whoever can publish there forges notifications",
        [
            Edit(
                "gateway/bus/wire.py",
                """
-        if not hmac.compare_digest(mac, self._mac(channel, head, body)):
-            raise Refused("forged")
""",
            )
        ],
        [
            Sight(
                "tests/security/test_cfg_bus.py"
                "::test_CFG_04_what_a_stranger_publishes_is_dropped_and_counted_and_un_revokes_nobody",
                r"node two has counted what it hears: not within",
            )
        ],
    ),
)

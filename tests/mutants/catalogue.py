"""Every mutant, in the order of the page. A mutant is a mistake somebody could make, or a step somebody could skip."""

from __future__ import annotations

from tests.mutants.delivery import DELIVERY
from tests.mutants.mutant import Mutant
from tests.mutants.nodes import NODES
from tests.mutants.revocation import REVOCATION
from tests.mutants.security import SECURITY
from tests.mutants.storing import STORING

MUTANTS: tuple[Mutant, ...] = (*STORING, *DELIVERY, *REVOCATION, *NODES, *SECURITY)

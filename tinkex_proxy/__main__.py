"""`python -m tinkex_proxy` is `tinkex-proxy`."""

import sys

from tinkex_proxy.cli import main

if __name__ == "__main__":
    sys.exit(main())

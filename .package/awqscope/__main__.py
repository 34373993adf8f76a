"""`python -m awqscope` is `awqscope`."""

from awqscope.app.cli import main

main()

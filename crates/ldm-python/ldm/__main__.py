"""``python -m ldm``: the command ``ldm``."""

from ldm._launch import main

main()

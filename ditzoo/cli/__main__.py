from ditzoo.cli import main

main()

"""The older name of `python -m campaigns.benchmark`, which notes and scripts still have."""

from campaigns.benchmark import main

if __name__ == "__main__":
    main()

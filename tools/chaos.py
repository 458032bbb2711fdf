"""The older name of `python -m campaigns.chaos`, which notes and scripts still have."""

from campaigns.chaos.__main__ import main

if __name__ == "__main__":
    main()

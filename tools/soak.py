"""The older name of `python -m campaigns.soak`, which notes and scripts still have."""

from campaigns.soak import main

if __name__ == "__main__":
    main()

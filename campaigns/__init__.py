"""What a maintainer runs and a user does not: comparisons of speed, kills, soaks, how wheel and site are built."""

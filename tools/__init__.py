"""What a user runs: training, studies, figures, videos, diagnoses."""

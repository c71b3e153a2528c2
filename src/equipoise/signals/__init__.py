"""What a model's own outputs say about its confidence; torch only."""

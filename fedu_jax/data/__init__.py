"""Data: sources of images, partitions over clients, and the decoded cache."""

"""Images in: sources, partitions, image files, and the decoded cache."""

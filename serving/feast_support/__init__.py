"""What both Feast plugins need at Feast's border: sources, names, instants."""

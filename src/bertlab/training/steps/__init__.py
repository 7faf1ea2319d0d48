"""What a step is made of and what is kept of it: learning rate, average, generators, records, ends."""

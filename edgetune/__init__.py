"""Train soft prompts on a frozen transformer, export it once, classify on the edge."""

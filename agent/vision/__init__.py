"""From a frame to findings: preprocess, run, decode, suppress, map back to the source."""

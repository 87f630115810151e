"""From finished runs to what they prove; no HTML."""

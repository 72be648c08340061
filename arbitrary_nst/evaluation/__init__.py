"""Methods compared: every method makes every pair, every picture is scored, one table says the rest."""

"""How well something was learned, or learned of: measures that need the truth, so no attack is given them."""

"""The people who look after the system: their accounts, and times as they type them."""

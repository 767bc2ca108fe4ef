"""Commands about money: what tokens cost, what was spent, and what may be."""

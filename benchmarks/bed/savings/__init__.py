"""What the savings are measured with: questions with known answers, users who ask them, and a fleet that answers."""

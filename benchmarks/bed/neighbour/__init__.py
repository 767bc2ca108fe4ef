"""A hostile app beside good ones, and the receivers of their webhooks."""

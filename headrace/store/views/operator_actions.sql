CREATE VIEW operator_actions AS
SELECT l.id, l.at, l.actor, l.source, l.action, l.subject, a.name AS app, l.details
FROM audit_log l LEFT JOIN apps a ON a.id = l.app_id;

COMMENT ON VIEW operator_actions IS 'What operators did, newest last: the audit log with apps by name.';
COMMENT ON COLUMN operator_actions.id IS 'Grows with the time.';
COMMENT ON COLUMN operator_actions.at IS 'The start of the transaction in which it was done.';
COMMENT ON COLUMN operator_actions.actor IS
    'The operator: the account at /ops, user@host in a terminal, the login of Flower, or celery.';
COMMENT ON COLUMN operator_actions.source IS
    'pages: logged in at /ops; cli: in a terminal that reaches the database; celery: Flower or celery control.';
COMMENT ON COLUMN operator_actions.action IS 'The kind of the subject, and what was done to it, such as key.revoke.';
COMMENT ON COLUMN operator_actions.subject IS 'The id or name of what it was done to.';
COMMENT ON COLUMN operator_actions.app IS 'The app''s name; NULL: none.';
COMMENT ON COLUMN operator_actions.details IS 'What changed, before and after. No secret, no prompt, no answer.';

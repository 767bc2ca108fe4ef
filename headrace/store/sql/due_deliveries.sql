-- Chooses due webhooks: goes from receiver to receiver in an index, and reads only the few rows of each that may be
-- sent, so that a receiver without free slots hides no other. First come those whose app and receiver have the fewest
-- running tries, then the oldest.
--
-- Run by: webhook workers, each time they have free slots (headrace/store/deliveries.py).
-- Parameters: most, the free slots; per_app, per_receiver, the slots of each; apps, app_counts, receivers,
--     receiver_counts, which tries run, as arrays; full_apps, the apps without free slots; groups, the most receivers
--     that are read, after after_app and after_receiver.
-- Returns: one row: the chosen `ids`, whether there are more (`is_more`), how many receivers were read (`n`), and the
--     last one's `app` and `receiver`. No row if there is none after the given one.
WITH RECURSIVE held_apps (app, n) AS MATERIALIZED (
    SELECT * FROM unnest(:'apps'::uuid[], :'app_counts'::int[])
), held_receivers (receiver, n) AS MATERIALIZED (
    SELECT name COLLATE "C", n FROM unnest(:'receivers'::text[], :'receiver_counts'::int[]) held (name, n)
), pending AS NOT MATERIALIZED (
    -- The expressions of ix_deliveries_receiver.
    SELECT
        id, next_at, coalesce(app_id, '00000000-0000-0000-0000-000000000000'::uuid) AS app,
        lower(substring(url COLLATE "C", '://([^/?#]*)')) AS receiver
    FROM deliveries
    WHERE state = 'pending'
), groups (app, receiver, n) AS (
    (
        SELECT app, receiver, 1 FROM pending
        WHERE (app, receiver) > (:'after_app'::uuid, :'after_receiver' COLLATE "C")
        ORDER BY app, receiver LIMIT 1
    )
    UNION ALL
    SELECT later.app, later.receiver, groups.n + 1
    FROM groups
    CROSS JOIN LATERAL (
        SELECT app, receiver FROM pending
        WHERE (app, receiver) > (
            groups.app,
            -- Beyond all receivers: an app without free slots takes one probe in all.
            CASE WHEN groups.app = ANY (:'full_apps'::uuid[]) THEN chr(1114111) ELSE groups.receiver END COLLATE "C"
        )
        ORDER BY app, receiver LIMIT 1
    ) later
    WHERE groups.n < :'groups'::int
), due AS (
    SELECT head.id, head.next_at, groups.app, groups.receiver,
        coalesce(held_apps.n, 0) AS of_app, coalesce(held_receivers.n, 0) AS of_receiver,
        head.nth + coalesce(held_apps.n, 0) + coalesce(held_receivers.n, 0) AS turn
    FROM (
        SELECT app, receiver FROM groups
        WHERE NOT EXISTS (
            SELECT FROM paused_receivers p WHERE p.app_id = groups.app AND p.receiver = groups.receiver
        )
    ) groups
    LEFT JOIN held_apps ON held_apps.app = groups.app
    LEFT JOIN held_receivers ON held_receivers.receiver = groups.receiver
    CROSS JOIN LATERAL (
        SELECT first.id, first.next_at, row_number() OVER (ORDER BY first.next_at) AS nth
        FROM (
            SELECT id, next_at FROM pending
            WHERE pending.app = groups.app AND pending.receiver = groups.receiver AND next_at <= now()
            ORDER BY next_at
            LIMIT greatest(0, least(
                :'most'::int,
                :'per_app'::int - coalesce(held_apps.n, 0),
                :'per_receiver'::int - coalesce(held_receivers.n, 0)
            ))
        ) first
    ) head
), fair AS (
    SELECT id, next_at, turn,
        of_app + row_number() OVER (PARTITION BY app ORDER BY turn, next_at) AS app_nth,
        of_receiver + row_number() OVER (PARTITION BY receiver ORDER BY turn, next_at) AS receiver_nth
    FROM due
), chosen AS (
    SELECT id FROM fair
    WHERE app_nth <= :'per_app'::int AND receiver_nth <= :'per_receiver'::int
    ORDER BY turn, next_at LIMIT :'most'::int
)
SELECT
    (SELECT coalesce(array_agg(id), '{}') FROM chosen) AS ids,
    (SELECT count(*) FROM fair) > (SELECT count(*) FROM chosen) AS is_more, n, app, receiver
FROM groups
ORDER BY n DESC LIMIT 1;

-- A call that shows nothing of its own, in a task that other calls have evidence for: the tickets of the nearest call
-- before it, else of the nearest one after it, within a day. Not of a call on another branch, or in another repository:
-- there the work was another.
WITH evidence AS (
  SELECT kind, key, id, place, home, started_at, arg_min(tickets, call_id) AS tickets
  FROM links,
    unnest(['anywhere', coalesce(branch, '')]) AS places(place),
    unnest(['anywhere', coalesce(lower(repo), '')]) AS homes(home)
  WHERE len(tickets) > 0 AND source NOT IN ('task', 'none')
  GROUP BY ALL
),
wanting AS (
  SELECT call_id, kind, key, id, place, home, started_at
  FROM links,
    unnest(CASE WHEN branch IS NULL THEN ['anywhere'] ELSE ['', branch] END) AS places(place),
    unnest(CASE WHEN repo IS NULL THEN ['anywhere'] ELSE ['', lower(repo)] END) AS homes(home)
  WHERE len(tickets) = 0 AND len(candidates) = 0
),
near AS (
  SELECT wanting.call_id, 'earlier' AS side, wanting.started_at - evidence.started_at AS apart, tickets
  FROM wanting ASOF JOIN evidence
    ON wanting.kind = evidence.kind AND wanting.key = evidence.key AND wanting.id = evidence.id
    AND wanting.place = evidence.place AND wanting.home = evidence.home AND wanting.started_at >= evidence.started_at
  UNION ALL
  SELECT wanting.call_id, 'later' AS side, evidence.started_at - wanting.started_at AS apart, tickets
  FROM wanting ASOF JOIN evidence
    ON wanting.kind = evidence.kind AND wanting.key = evidence.key AND wanting.id = evidence.id
    AND wanting.place = evidence.place AND wanting.home = evidence.home AND wanting.started_at <= evidence.started_at
)
UPDATE looked
SET rule = 'task', tickets = found.tickets, source = 'task'
FROM (
  SELECT call_id, arg_min(tickets, (side, apart, tickets)) AS tickets
  FROM near
  WHERE apart <= INTERVAL 24 HOUR
  GROUP BY call_id
) AS found
WHERE looked.call_id = found.call_id

-- A call that shows nothing of its own, in a task that other calls have evidence for: the tickets of the nearest call
-- before it, else of the nearest one after it, within a day. If it shows a branch or a repository, only of calls there.
WITH evidence AS (
  SELECT kind, who, id, place, home, started_at, arg_min(tickets, call_id) AS tickets
  FROM links,
    unnest(['anywhere', coalesce(branch, 'anywhere')]) AS places(place),
    unnest(['anywhere', coalesce(lower(repo), 'anywhere')]) AS homes(home)
  WHERE len(tickets) > 0 AND source NOT IN ('task', 'none')
  GROUP BY ALL
),
wanting AS (
  SELECT
    call_id, kind, who, id, coalesce(branch, 'anywhere') AS place, coalesce(lower(repo), 'anywhere') AS home, started_at
  FROM links
  WHERE len(tickets) = 0 AND len(candidates) = 0
),
near AS (
  SELECT wanting.call_id, 'earlier' AS side, wanting.started_at - evidence.started_at AS apart, tickets
  FROM wanting ASOF JOIN evidence
    ON wanting.kind = evidence.kind AND wanting.who = evidence.who AND wanting.id = evidence.id
    AND wanting.place = evidence.place AND wanting.home = evidence.home AND wanting.started_at >= evidence.started_at
  UNION ALL
  SELECT wanting.call_id, 'later' AS side, evidence.started_at - wanting.started_at AS apart, tickets
  FROM wanting ASOF JOIN evidence
    ON wanting.kind = evidence.kind AND wanting.who = evidence.who AND wanting.id = evidence.id
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

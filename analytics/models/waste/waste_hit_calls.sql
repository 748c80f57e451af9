-- The calls of what the rules of waste find now. One row per finding and call.
-- @recoverable_nano: What could have been saved of it, at most what was paid, nano-USD; NULL without a price
-- @low_nano: What could certainly have been saved, nano-USD
-- @high_nano: What could have been saved at best, nano-USD
-- @on_day: UTC day on which it started
-- @cost_nano: What was paid for it, nano-USD; NULL without a price
-- Money that is gone (sunk) can be saved the next time, perhaps; candidates and polling only if that is confirmed.
WITH each_call AS (
  -- A call may name a ticket by several keys.
  SELECT finding_id, rule, kind, ticket_id, call_id, CAST(sum(nano) AS HUGEINT) AS nano
  FROM (SELECT finding_id, rule, kind, ticket_id, unnest(calls, recursive := true) FROM waste_hits)
  GROUP BY ALL
),
bounded AS (
  SELECT
    finding_id, rule, kind, each_call.ticket_id, call_id, started_at, on_day, team_id, model, tickets, is_counted,
    cost_nano,
    CASE WHEN coalesce(kind NOT IN ('backed_off', 'clamped', 'disputed'), true)
      THEN least(nano, cost_nano) WHEN cost_nano IS NOT NULL THEN 0 END AS high_nano
  FROM each_call JOIN waste_calls USING (call_id)
)
SELECT
  *,
  CASE WHEN kind IN ('polling', 'candidate') THEN high_nano * 0 ELSE high_nano END AS recoverable_nano,
  CASE WHEN kind IN ('polling', 'candidate', 'sunk') THEN high_nano * 0 ELSE high_nano END AS low_nano
FROM bounded

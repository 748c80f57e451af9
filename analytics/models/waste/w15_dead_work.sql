-- W15: work on a ticket that came to nothing: not delivered, nothing merged or open, long quiet. One row per ticket.
-- @kind: Always sunk: the money is gone; it tells where to stop earlier
-- @group_key: Ticket
-- @ticket_id: Ticket by its present key
-- @calls: The calls, with this ticket's share of their cost
-- @numbers: How many calls, the last of them, the sum, when the tracker was last read
-- @sentence: The same in words
-- Kinds of tickets, and calls with a purpose, that need no pull request are left out; a ticket that has such calls is
-- not quiet.
WITH spent AS (
  SELECT
    ticket_id,
    list({call_id: call_id, nano: nano} ORDER BY started_at, call_id) FILTER (is_meant) AS calls,
    max(started_at) AS last_at,
    sum(nano) FILTER (is_meant) AS ticket_nano,
    max(seen_at) AS seen_at
  FROM (SELECT *, coalesce(purpose NOT IN ('research', 'support'), true) AS is_meant FROM waste_ticket_calls)
  WHERE ticket_id IS NOT NULL
  GROUP BY ticket_id
)
SELECT
  'sunk' AS kind,
  ticket_id AS group_key,
  ticket_id,
  calls,
  to_json({
    calls: len(calls), last_call_at: last_at, synced_at: seen_at,
    spent_usd: CAST(CAST(ticket_nano AS BIGINT) * 0.000000001 AS DECIMAL(18,9))
  }) AS numbers,
  format(
    '{} calls for {}, which was not delivered and has no pull request that was merged or is open; the last was on {}.',
    len(calls), ticket_id, CAST(last_at AS DATE)
  ) AS sentence
FROM spent JOIN waste_tickets AS states USING (ticket_id) CROSS JOIN waste_terms
WHERE NOT is_delivered AND merged_prs = 0 AND NOT has_open_pr
  AND last_at < as_of - to_days(CAST(settings.w15_days AS INTEGER))
  AND seen_at > last_at + to_hours(CAST(settings.w15_hours AS BIGINT))
  AND ticket_nano >= CAST(settings.w15_usd AS DECIMAL(28,9)) * 1000000000
  AND coalesce(NOT list_contains(settings.w15_types, type), true)

-- W14: spend on a ticket that does not exist, or that had been cancelled before. One row per ticket.
-- @kind: unknown or cancelled
-- @group_key: Ticket, and the kind
-- @ticket_id: Ticket by its present key; one that does not exist as calls name it
-- @calls: The calls, with this ticket's share of their cost
-- @numbers: How many calls, when it was cancelled, when the tracker was last read
-- @sentence: The same in words
-- Tickets are judged by what is known of them now, under any key that they have had, and only where the tracker was
-- read a day or more after the call. One that was known at the time of the call, and is not now, was moved or removed.
WITH judged AS (
  SELECT
    parts.* REPLACE (coalesce(parts.ticket_id, name) AS ticket_id),
    CASE
      WHEN parts.ticket_id IS NULL AND synced_at > started_at + lag
        AND (state = 'unknown' OR is_listed AND coalesce(state = 'unchecked', true)) THEN 'unknown'
      WHEN is_cancelled AND started_at > done_at + lag AND seen_at > started_at + lag THEN 'cancelled'
    END AS kind,
    done_at
  FROM (
    SELECT *, to_hours(CAST(settings.w14_hours AS BIGINT)) AS lag
    FROM waste_ticket_calls, waste_terms
  ) AS parts
    LEFT JOIN waste_tickets AS states USING (ticket_id)
)
SELECT
  kind,
  concat_ws('|', ticket_id, kind) AS group_key,
  ticket_id,
  list({call_id: call_id, nano: nano} ORDER BY started_at, call_id) AS calls,
  to_json({calls: count(*), cancelled_at: any_value(done_at), synced_at: max(coalesce(synced_at, seen_at))}) AS numbers,
  CASE kind
    WHEN 'unknown' THEN format('{} calls are for {}, which its tracker does not know.', count(*), ticket_id)
    ELSE format('{} calls for {} came more than a day after it was cancelled.', count(*), ticket_id)
  END AS sentence
FROM judged
WHERE kind IS NOT NULL
GROUP BY kind, ticket_id

-- W14: spend on a ticket that does not exist, or that had been cancelled before. One row per ticket.
-- @kind: unknown or cancelled
-- @group_key: Ticket, and the kind
-- @ticket_id: Ticket, as calls name it
-- @calls: The calls, with this ticket's share of their cost
-- @numbers: How many calls, when it was cancelled, when the tracker was last read
-- @sentence: The same in words
-- Tickets are judged by what is known of them now, under any key that they have had, and only where the tracker was
-- read a day or more after the call.
WITH judged AS (
  SELECT
    parts.*,
    CASE
      WHEN parts.ticket_id IS NULL AND parts.synced_at >= started_at + lag
        AND (ticket_state = 'unknown' OR known.project IS NOT NULL) THEN 'unknown'
      WHEN is_cancelled AND started_at > done_at + lag AND seen_at >= started_at + lag THEN 'cancelled'
    END AS kind,
    done_at
  FROM (
    SELECT *, to_hours(CAST(settings.w14_hours AS BIGINT)) AS lag
    FROM waste_ticket_calls, waste_terms
  ) AS parts
    LEFT JOIN waste_tickets AS states USING (ticket_id)
    LEFT JOIN projects AS known ON known.project = regexp_extract(name, '^(.+)[-#][0-9]+$', 1)
)
SELECT
  kind,
  concat_ws('|', coalesce(ticket_id, name), kind) AS group_key,
  coalesce(ticket_id, name) AS ticket_id,
  list({call_id: call_id, nano: nano} ORDER BY started_at, call_id) AS calls,
  to_json({calls: count(*), cancelled_at: any_value(done_at), synced_at: max(coalesce(synced_at, seen_at))}) AS numbers,
  CASE kind
    WHEN 'unknown' THEN format('{} calls are for {}, which its tracker does not know.', count(*), coalesce(ticket_id, name))
    ELSE format('{} calls for {} came more than a day after it was cancelled.', count(*), ticket_id)
  END AS sentence
FROM judged
WHERE kind IS NOT NULL
GROUP BY kind, coalesce(ticket_id, name), ticket_id, name

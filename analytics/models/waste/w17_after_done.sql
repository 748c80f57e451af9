-- W17: spend on a ticket days after it was delivered, though it was not opened again. One row per ticket.
-- @kind: Always NULL
-- @group_key: Ticket
-- @ticket_id: Ticket by its present key
-- @calls: The calls, with this ticket's share of their cost
-- @numbers: When it was done, hours until the last call, how many calls
-- @sentence: The same in words
-- What a program closed when it was merged counts as done from its deployment.
WITH late AS (
  SELECT
    parts.call_id, parts.started_at, parts.nano, ticket_id,
    CASE WHEN is_closed_by_bot THEN greatest(done_at, deployed_at) ELSE done_at END AS finished_at,
    settings.w17_hours AS hours
  FROM waste_ticket_calls AS parts JOIN waste_tickets USING (ticket_id) CROSS JOIN waste_terms
  WHERE is_delivered AND NOT is_reopened
    AND coalesce(purpose <> 'support', true)
    AND coalesce(NOT list_contains(settings.w17_types, type), true)
)
SELECT
  NULL AS kind,
  ticket_id AS group_key,
  ticket_id,
  list({call_id: call_id, nano: nano} ORDER BY started_at, call_id) AS calls,
  to_json({
    done_at: any_value(finished_at), last_hours_after: round(epoch(max(started_at) - any_value(finished_at)) / 3600, 1),
    calls: count(*)
  }) AS numbers,
  format('{} calls for {} came more than {} hours after it was delivered.', count(*), ticket_id, any_value(hours))
    AS sentence
FROM late
WHERE started_at > finished_at + to_hours(CAST(hours AS BIGINT))
GROUP BY ticket_id

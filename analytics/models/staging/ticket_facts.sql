-- What trackers and forges know of tickets, and what follows from that alone. One row per ticket.
-- @outcome: What became of the ticket: delivered, abandoned, in_progress
SELECT
  ticket_id,
  CASE
    WHEN status_category = 'done' AND coalesce(
      trim(lower(nfc_normalize(regexp_replace(replace(resolution, '’', ''''), '[\s_]+', ' ', 'g'))))
        IN (SELECT word FROM work_words WHERE kind = 'not_delivered'), false) THEN 'abandoned'
    WHEN status_category = 'done' THEN 'delivered'
    ELSE 'in_progress'
  END AS outcome
FROM tickets

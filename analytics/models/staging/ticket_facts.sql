-- What became of tickets, as far as trackers alone tell. One row per ticket.
-- @outcome: delivered, abandoned or in_progress
SELECT
  ticket_id,
  CASE
    WHEN status_category IS DISTINCT FROM 'done' THEN 'in_progress'
    WHEN lower(resolution) IN (SELECT resolution FROM undelivered_resolutions) THEN 'abandoned'
    ELSE 'delivered'
  END AS outcome
FROM tickets

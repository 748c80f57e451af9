-- Parts of pull requests that are for their tickets. One row per pull request and ticket.
-- @pr_id: Repository and number of the pull request: acme/shop!46
-- @ticket_id: Ticket by its present key; a mere mention does not count
-- @weight: Equal part of the pull request; the billionths that do not divide go to the best founded tickets, so that the parts of a pull request sum to 1
SELECT
  pr_id,
  ticket_id,
  CAST(
    (1000000000 // ways + CASE WHEN ticket_position <= 1000000000 % ways THEN 1 ELSE 0 END) * 0.000000001 AS DECIMAL(10,9)
  ) AS weight
FROM (
  SELECT
    pr_id,
    unnest(tickets) AS ticket_id,
    generate_subscripts(tickets, 1) AS ticket_position,
    len(tickets) AS ways
  FROM pr_evidence
)

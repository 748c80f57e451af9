-- What happened to a ticket, in order, at its tracker and forge. One row per event.
WITH pulls AS (
  SELECT pr_id, pull_requests.title, created_at, pull_requests.merged_at, closed_at, fates.reverted_at
  FROM pr_ticket_weights JOIN pull_requests USING (pr_id) LEFT JOIN pr_fates AS fates USING (pr_id)
  WHERE ticket_id = $ticket
)
SELECT happened_at, event, detail
FROM (
  SELECT created_at AS happened_at, 'ticket made' AS event, NULL AS detail FROM tickets WHERE ticket_id = $ticket
  UNION ALL
  SELECT changed_at, 'status', status FROM ticket_statuses WHERE ticket_id = $ticket
  UNION ALL
  SELECT started_at, 'work begun', NULL FROM tickets WHERE ticket_id = $ticket
  UNION ALL
  SELECT done_at, 'done', resolution FROM tickets WHERE ticket_id = $ticket
  UNION ALL
  SELECT created_at, 'pull request opened', pr_id FROM pulls
  UNION ALL
  SELECT merged_at, 'pull request merged', pr_id FROM pulls
  UNION ALL
  SELECT closed_at, 'pull request closed unmerged', pr_id FROM pulls WHERE merged_at IS NULL
  UNION ALL
  SELECT reverted_at, 'pull request reverted', pr_id FROM pulls
  UNION ALL
  SELECT coalesce(finished_at, started_at), 'deployed to ' || environment || ': ' || status, pr_id
  FROM pulls JOIN deployment_prs USING (pr_id) JOIN deployments USING (deployment_id)
)
WHERE happened_at IS NOT NULL
ORDER BY happened_at, event, detail

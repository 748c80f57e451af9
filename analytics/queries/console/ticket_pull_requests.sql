-- Pull requests of a ticket, and the share of each that counts for it. One row per pull request.
SELECT
  pr_id, title, weights.source AS linked_by, weight AS share, created_at, pulls.merged_at, closed_at, fates.deployed_at,
  additions, deletions, approvals_by_others, fates.reverted_at, url
FROM pr_ticket_weights AS weights
  JOIN pull_requests AS pulls USING (pr_id)
  LEFT JOIN pr_fates AS fates USING (pr_id)
WHERE ticket_id = $ticket
ORDER BY created_at, pr_id

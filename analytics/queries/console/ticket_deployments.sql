-- Deployments that carried pull requests of a ticket. One row per deployment and pull request.
SELECT pr_id, environment, deployments.status, started_at, finished_at, failed_at, sha, deployments.url
FROM pr_ticket_weights JOIN deployment_prs USING (pr_id) JOIN deployments USING (deployment_id)
WHERE ticket_id = $ticket
ORDER BY coalesce(finished_at, started_at), pr_id

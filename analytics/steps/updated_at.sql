-- Of some tickets, pull requests or deployments, when their tracker last changed them.
SELECT ticket_id AS id, updated_at FROM tickets WHERE $table = 'tickets' AND list_contains($ids, ticket_id)
UNION ALL
SELECT pr_id AS id, updated_at FROM pull_requests WHERE $table = 'pull_requests' AND list_contains($ids, pr_id)
UNION ALL
SELECT deployment_id AS id, updated_at FROM deployments WHERE $table = 'deployments' AND list_contains($ids, deployment_id)

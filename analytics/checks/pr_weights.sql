-- The parts of each pull request that are for its tickets sum to 1.
SELECT pr_id, sum(weight) AS weights
FROM pr_ticket_weights
GROUP BY pr_id
HAVING sum(weight) <> 1

-- Tickets that pull requests name, and where. One row per pull request, ticket and source.
-- @pr_id: Repository and number of the pull request: acme/shop!46
-- @ticket_id: Ticket that it names
-- @source: Where, in order of trust: tracker (a link there), title, branch, body_close (closes #45), commit, body_mention
FROM read_parquet('lake:work/**/pr_tickets.parquet', union_by_name = true, hive_partitioning = false)
UNION
-- What Linear, say, knows of a pull request is read with its tickets, not with the pull request.
SELECT pr_id, ticket_id, 'tracker' FROM ticket_prs

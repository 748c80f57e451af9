-- Tickets that pull requests are for, each with its share. One row per pull request and ticket.
-- @pr_id: Repository and number: acme/shop!46
-- @ticket_id: Ticket, by its present key
-- @source: What names it, the best founded: tracker, title, branch, body_close, commit
-- @ticket_position: Place of the ticket among those of the pull request, the best founded first, from 1
-- @weight: Its equal share of the pull request; what does not divide goes to the first tickets, so that the weights of a pull request sum to 1 exactly
-- A mere mention has no share; nor has a number that is neither a known ticket nor a pull request, unless the tracker
-- itself says so. A pull request that names another one is for the tickets which that one names.
WITH ranked AS (
  SELECT pr_id, ticket_id AS name, list_position(['tracker', 'title', 'branch', 'body_close', 'commit'], source) AS trust
  FROM pr_tickets
  WHERE source <> 'body_mention'
),
named AS (
  SELECT ranked.pr_id, ranked.name, ranked.trust, names.ticket_id, referred.pr_id AS other_pr
  FROM ranked
    LEFT JOIN ticket_names AS names USING (name)
    LEFT JOIN pr_evidence AS referred ON referred.reference = ranked.name AND names.ticket_id IS NULL
),
own AS (
  SELECT pr_id, trust, coalesce(ticket_id, name) AS ticket_id
  FROM named
  WHERE ticket_id IS NOT NULL OR (other_pr IS NULL AND (trust = 1 OR NOT regexp_matches(name, '/.*#[0-9]+$')))
),
all_named AS (
  FROM own
  UNION ALL
  SELECT named.pr_id, named.trust, own.ticket_id
  FROM named JOIN own ON own.pr_id = named.other_pr
  WHERE named.other_pr <> named.pr_id
),
placed AS (
  SELECT
    pr_id, ticket_id, min(trust) AS trust,
    row_number() OVER (PARTITION BY pr_id ORDER BY min(trust), ticket_id) AS ticket_position,
    count(*) OVER (PARTITION BY pr_id) AS ways
  FROM all_named
  GROUP BY pr_id, ticket_id
)
SELECT
  pr_id,
  ticket_id,
  ['tracker', 'title', 'branch', 'body_close', 'commit'][trust] AS source,
  ticket_position,
  CAST(
    (1000000000 // ways + CASE WHEN ticket_position <= 1000000000 % ways THEN 1 ELSE 0 END) * 0.000000001
    AS DECIMAL(10,9)
  ) AS weight
FROM placed

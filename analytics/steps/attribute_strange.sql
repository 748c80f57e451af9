-- Tickets that were taken from branches, of projects that neither the tracker nor the settings know, and that no pull
-- request names. None before all tickets of a project were read.
CREATE OR REPLACE TEMP TABLE strange AS
WITH named AS (
  SELECT DISTINCT unnest(tickets) AS ticket FROM looked WHERE source IN ('branch', 'task')
),
known AS (
  SELECT project FROM projects
  UNION
  SELECT regexp_extract(name, '^(.+)[-#][0-9]+$', 1) FROM ticket_names
  UNION
  SELECT unnest(getvariable('projects'))
)
FROM named
WHERE EXISTS (FROM projects WHERE synced_at IS NOT NULL)
  AND regexp_extract(ticket, '^(.+)[-#][0-9]+$', 1) NOT IN (FROM known)
  AND ticket NOT IN (SELECT unnest(tickets) FROM pr_evidence)

-- A call without a ticket on a branch whose name is read otherwise now that more projects are known. $names is JSON.
UPDATE looked
SET rule = 'name', tickets = names.tickets, source = 'branch',
  candidates = list_filter(candidates, lambda each: NOT list_contains(names.tickets, replace(each, 'branch:', '')))
FROM (
  SELECT unnest(from_json($names, '[{"repo": "VARCHAR", "branch": "VARCHAR", "tickets": ["VARCHAR"]}]'), recursive := true)
) AS names
WHERE len(looked.tickets) = 0 AND names.branch = looked.branch AND names.repo IS NOT DISTINCT FROM looked.repo

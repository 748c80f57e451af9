-- The parts that teams have in a unit of work sum to one.
SELECT unit_id, list_sum([team.part for team in teams]) AS parts
FROM work_units
WHERE parts IS NULL OR abs(parts - 1) > 0.000001

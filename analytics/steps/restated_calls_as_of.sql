-- All corrections recorded before the variable as_of.
FROM all_restated_calls
WHERE corrected_at < getvariable('as_of')

"""Methods against forgetting: penalties, rehearsal, distillation, and the lines they lie between."""

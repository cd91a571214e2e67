"""Methods against forgetting: penalties, rehearsal, distillation, and the lines between."""

"""Train a pipeline on real data and save what `edgepack convert` needs: a model and a CSV."""

import joblib
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

data = load_breast_cancer(as_frame=True)
malignant = 1 - data.target.rename("malignant")
train_x, test_x, train_y, test_y = train_test_split(
    data.data, malignant, test_size=0.4, random_state=0, stratify=malignant
)
model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
model.fit(train_x, train_y)
print(f"accuracy on {len(test_x)} rows that it has not seen: {model.score(test_x, test_y):.3f}")
joblib.dump(model, "tumour.joblib")
test_x.assign(malignant=test_y).to_csv("tumour.csv", index=False)
